"""Generated from proto/penchant/v1. Do not edit; `make proto` writes it anew."""
