"""The mutating admission webhook that puts agents into new pods of engaged workloads."""
