"""The same numbers as implementations that others wrote. Needs tests/parity/requirements.txt; see conftest.py."""
