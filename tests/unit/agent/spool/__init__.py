"""What the spool's files hold after kills, on full disks and with flipped bits."""
