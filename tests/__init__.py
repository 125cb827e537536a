"""What tests and the commands they start have in common."""

from importlib import metadata

# How XLA compiles quickest for the CPU, which is most of the tests' time: level 0 takes half of it, and without the
# fusion emitters a third of the rest goes too. Later versions do not know the second, and stop at what they don't know.
QUICK = "--xla_backend_optimization_level=0"
if metadata.version("jaxlib").startswith("0.10."):
    QUICK += " --xla_cpu_use_fusion_emitters=false"
