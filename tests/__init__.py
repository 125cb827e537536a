"""What tests and the commands they start have in common."""

from importlib import metadata

# How XLA compiles quickest for the CPU, which is most of the tests' time: level 0 takes half of it, without the fusion
# emitters a third of the rest goes too, and a tenth with the others. Later versions may not know them, and stop at what
# they don't know.
QUICK = "--xla_backend_optimization_level=0"
if metadata.version("jaxlib").startswith("0.10."):
    QUICK += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    QUICK += " --xla_llvm_disable_expensive_passes=true"
