"""`equilign refine`: a Leader's answers improved by a Follower, streaming and resumable."""
