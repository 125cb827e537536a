"""One-line mutations of the package, and the tests that must notice each. A campaign, no part of the suite."""
