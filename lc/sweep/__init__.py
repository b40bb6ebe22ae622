"""Many runs: with several processes, their state, and whether a machine is right for them."""
