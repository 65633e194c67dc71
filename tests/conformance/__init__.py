"""The conformance suite of language plugins: README.md says what a conformance application answers."""
