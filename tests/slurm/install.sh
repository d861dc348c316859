#!/bin/sh
# Installs what tests/slurm starts, on Debian or Ubuntu and as root; says so where it cannot. Starts no service.
command -v slurmctld slurmd slurmdbd munged mariadbd srun >/dev/null 2>&1 && exit 0
[ "$(id -u)" = 0 ] || { echo "make slurm: not root, so SLURM is not installed"; exit 0; }
command -v apt-get >/dev/null || { echo "make slurm: no apt-get, so SLURM is not installed"; exit 0; }
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
{ timeout 120 apt-get update && timeout 300 apt-get install -y --no-install-recommends \
    slurm-wlm slurmdbd munge mariadb-server; } >/dev/null 2>&1 || echo "make slurm: the packages of SLURM cannot be had"
