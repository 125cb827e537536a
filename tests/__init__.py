"""What tests and the commands they start have in common."""

# How XLA compiles quickest for the CPU, which is most of the tests' time: level 0 takes half of it, and without the
# fusion emitters a third of the rest goes too.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
