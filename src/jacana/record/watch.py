from __future__ import annotations
from typing import Any

class Watches:
    def unchanged(self) -> bool:
        return True
    def content(self, array: Any) -> None:
        pass

def watch_function(watches: Watches, function: Any, followed: Any) -> None:
    pass
