"""Everything behind the mitmproxy script llm_calls.py: from the bytes on the wire to the row in SQL."""

__version__ = "0.1.0"
