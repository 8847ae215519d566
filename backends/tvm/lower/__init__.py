"""How each op of a frozen graph becomes kernel calls; one file per family, under the names of ``ir/ops``."""
