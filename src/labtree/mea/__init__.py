"""Steps for CMOS multi-electrode array recordings."""
