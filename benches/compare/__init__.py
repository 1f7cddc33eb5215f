"""The primitives next to what people use for the same work today."""
