from eyesmith.tokenizer.clip import ClipTokenizer
from eyesmith.tokenizer.pieces import Cleaning, PieceTokenizer, TokenizerName, has_pieces

__all__ = ["Cleaning", "ClipTokenizer", "PieceTokenizer", "TokenizerName", "has_pieces"]
