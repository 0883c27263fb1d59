"""The services of the contract, one file each. They translate; the engine does the work."""
