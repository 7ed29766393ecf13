"""Runs the Python tests of one folder and ends with one plain line: N passed, N failed."""

import logging
import os
import sys
import unittest
from pathlib import Path

if not os.environ.get("STOA_CLIENTS_LOG"):
    logging.disable(logging.CRITICAL)

folder = Path(__file__).parent / sys.argv[1]
suite = unittest.TestLoader().discover(str(folder), pattern="test_*.py", top_level_dir=str(folder))
result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(suite)
failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
passed = result.testsRun - failed - len(result.skipped)
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
