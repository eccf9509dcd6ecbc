from eyesmith.tokenizer.clip import ClipTokenizer

__all__ = ["ClipTokenizer"]
