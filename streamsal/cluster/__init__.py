"""A run on a cluster: what Slurm is asked for, what a task's environment says, how far it is."""
