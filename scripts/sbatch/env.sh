# What this site needs before streamsal runs: edit it, or keep one of your own and name it in $STREAMSAL_ENV.
# The scripts beside it read it where the job was submitted from, as scripts/sbatch/env.sh; without it they go on with
# the environment of the shell that sbatch was called in.

# module purge
# module load Python/3.11.5-GCCcore-13.2.0 CUDA/12.6.0
# . "$HOME/venvs/streamsal/bin/activate"

# Compute nodes download nothing: `streamsal weights fetch NAME` on the login node, to a place that all nodes see.
# export STREAMSAL_HOME=/shared/streamsal

# The video is copied to the node's own disk ($TMPDIR) before it is read.
# export STREAMSAL_STAGE=1
