"""Makes adapters: fine-tuning of the encoder and of the models beside it. The server never imports it."""
