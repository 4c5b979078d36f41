"""The fleet: the nodes of an engine that exists (Slurm, Ray, ssh), each of which runs one command of its own mdl."""
