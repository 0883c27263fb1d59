"""Generated from proto/buf/validate. Do not edit; `make proto` writes it anew."""
