"""The command `tpctl`: translates what people type into control messages for tpd, and the answers into text.

It imports nothing heavy: `tpctl --help` answers at once. Rich, protobuf and PyYAML are imported where they are used.
"""
