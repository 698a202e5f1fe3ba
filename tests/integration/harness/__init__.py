"""What the integration tests, the fault tests and the benchmark stand on: real sshds, a leader, a
network proxy, database writers and an oracle. Python's standard library only."""
