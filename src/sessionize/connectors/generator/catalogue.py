"""The products in generated events: always the same fifty, for any seed.

PROD_001 and PROD_002 are on flash sale: they get a fifth of all looks, and are rarely bought.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PRODUCT_COUNT = 50
FLASH_COUNT = 2
_FLASH_SHARE = 0.2
_CATEGORIES = ("electronics", "fashion", "home", "sports", "books", "toys")
_PRICE_LEVELS = (249.0, 59.0, 84.0, 39.0, 14.0, 22.0)


@dataclass(frozen=True, slots=True)
class Product:
    """One product. number counts from 0; price in units of money with two decimals."""

    number: int
    product_id: str
    category: str
    price: str


def _product(number: int) -> Product:
    category = number % len(_CATEGORIES)
    price = _PRICE_LEVELS[category] * (0.4 + (number * 7 % PRODUCT_COUNT) / PRODUCT_COUNT * 1.6) // 1 + 0.99
    return Product(number, f"PROD_{number + 1:03d}", _CATEGORIES[category], f"{price:.2f}")


PRODUCTS = tuple(_product(number) for number in range(PRODUCT_COUNT))


def popularity() -> npt.NDArray[np.float64]:
    """float64[PRODUCT_COUNT], ascending to 1.0: the cumulative share of looks.

    The looks at products that are not on flash sale are proportional to 1 / rank.
    """
    share = 1.0 / np.arange(1, PRODUCT_COUNT - FLASH_COUNT + 1)
    share *= (1.0 - _FLASH_SHARE) / share.sum()
    cumulative = np.cumsum(np.concatenate([np.full(FLASH_COUNT, _FLASH_SHARE / FLASH_COUNT), share]))
    cumulative[-1] = 1.0
    return np.asarray(cumulative, dtype=np.float64)
