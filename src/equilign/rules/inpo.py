"""Iterative Nash policy optimisation (Zhang et al. 2024, arXiv:2407.00617)."""

from dataclasses import replace

from equilign.rules.omd import OMD

# The paper's eta is the inverse of ours, its tau our beta: with those names, mirror descent's
# equation. The papers differ in the loss that fits it.
INPO = replace(OMD, name="inpo", title="INPO", paper="arXiv:2407.00617")
