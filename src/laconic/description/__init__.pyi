from .evaluate import DataCode
from .ledger import Ledger, LedgerRow
from .measurement import Measurement

__all__ = ["DataCode", "Ledger", "LedgerRow", "Measurement"]
