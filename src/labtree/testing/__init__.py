"""Made-up data to try things on: small, quick, the same every time."""
