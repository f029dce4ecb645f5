"""The temporal regions of a video, as the official labels name them."""

REGION_CLASSES = ("Action", "No action")
"""The region head's classes in the order of the official labels: foreground 0, background 1."""
