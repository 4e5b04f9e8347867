from .describe import DataCode
from .ledger import Ledger, LedgerRow, Measurement

__all__ = ["DataCode", "Ledger", "LedgerRow", "Measurement"]
