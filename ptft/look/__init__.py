"""``ptft data look``: a page that shows people what a data section holds, before they train."""

from ptft.look.run import DataPage, data_page

__all__ = ["DataPage", "data_page"]
