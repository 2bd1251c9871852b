"""How dates are written where nobody says it otherwise, which is in the operators' admin."""
