"""Talking to OpenAI-compatible servers: time limits, retries, and keys that stay secret.

Judges and samplers share this client. A request is tried again after time-outs, broken
connections, unreadable bodies and the statuses by which a server says "later"; a mistake of the
caller (a wrong key, an unknown model) is reported at once, with its cure.
"""

from equilign.endpoints.client import Endpoint
from equilign.endpoints.failures import EndpointError
from equilign.endpoints.parallel import as_they_arrive
from equilign.endpoints.policy import Clock, Meter, RetryPolicy

__all__ = ["Clock", "Endpoint", "EndpointError", "Meter", "RetryPolicy", "as_they_arrive"]
