"""Numbers for readers: bytes, counts, energy, ratios, times, in the unit that fits."""

from __future__ import annotations


def in_bytes(number: float) -> str:
    """In B, kB, MB or GB of 1000: 1750000 is "1.75 MB"."""
    return _scaled(number, ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")), "B")


def in_count(number: float) -> str:
    """As it is up to 9,999, then in thousands, millions or billions."""
    if number < 10_000:
        return f"{number:,.0f}"
    return _scaled(number, ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")), "")


def in_energy(low_pj: float, high_pj: float) -> str:
    """In pJ, nJ, uJ or mJ; one number where both are the same."""
    factor, unit = next(
        ((factor, unit) for factor, unit in ((1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ")) if high_pj >= factor), (1.0, "pJ")
    )
    low, high = f"{low_pj / factor:.2f}", f"{high_pj / factor:.2f}"
    return f"{low} {unit}" if low == high else f"{low}-{high} {unit}"


def in_ratio(larger: float, smaller: float) -> str:
    """ "31.6x", or "" where there is nothing to divide by."""
    if smaller == 0:
        return ""
    ratio = larger / smaller
    return f"{ratio:.1f}x" if ratio < 99.95 else f"{ratio:.0f}x"


def in_time(seconds: float) -> str:
    """In the two units that fit: "5.4 s", "11 min 42 s", "23 h 5 min"."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def _scaled(number: float, units: tuple[tuple[float, str], ...], plain: str) -> str:
    for factor, unit in units:
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.0f} {plain}".rstrip()
