"""The domain of Penchant: text, encoder, interests, record, index, recommendation. Knows no gRPC."""
