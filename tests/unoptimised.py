"""How processes of their own compile small programs quickly: unoptimised, with XLA's older code generator."""

XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
