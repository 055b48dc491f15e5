"""Look of the dashboard: Streamlit's options for fonts, sizes and the light and dark colours."""

from __future__ import annotations

from typing import Any, Final

INTER: Final = "/assets/fonts/inter-latin-wght-normal.woff2"
MONO: Final = "/assets/fonts/jetbrains-mono-latin-wght-normal.woff2"

LIGHT_SERIES: Final = (
    "#1F6FBF", "#D9720B", "#0E8A6B", "#B5377E", "#6B58C9", "#A3780A", "#1893AD", "#C2413B",
    "#5E7F1F", "#64748B",
)  # fmt: skip
DARK_SERIES: Final = (
    "#5AA9F0", "#F2A044", "#3CC79B", "#E57DB8", "#A594F5", "#DDB945", "#4CC5DC", "#F0837C",
    "#A4C857", "#94A3B8",
)  # fmt: skip
"""Chart colours, exactly ten each: with fewer Streamlit hands Plotly "undefined" and the palette is lost."""

_COMMON: Final[dict[str, Any]] = {
    "baseFontSize": 14,
    "font": "Inter, sans-serif",
    "headingFont": "Inter, sans-serif",
    "codeFont": "JetBrains Mono, monospace",
    "codeFontSize": "0.86rem",
    "fontFaces": [
        {"family": "Inter", "url": INTER, "weight": "100 900", "style": "normal"},
        {"family": "JetBrains Mono", "url": MONO, "weight": "100 800", "style": "normal"},
    ],
    "headingFontSizes": ["1.5rem", "1.15rem", "1rem", "0.95rem", "0.9rem", "0.9rem"],
    "headingFontWeights": [650, 600, 600, 600, 600, 600],
    "metricValueFontSize": "1.35rem",
    "baseRadius": "6px",
    "paddingTop": "1.25rem",
    "paddingBottom": "2rem",
    "showWidgetBorder": True,
    "showSidebarBorder": True,
    "linkUnderline": False,
}

_LIGHT: Final[dict[str, Any]] = {
    "primaryColor": "#1D66B0",
    "backgroundColor": "#FFFFFF",
    "secondaryBackgroundColor": "#F4F6F9",
    "textColor": "#0B1220",
    "linkColor": "#1D66B0",
    "borderColor": "#D9E0E7",
    "dataframeBorderColor": "#E4E9EE",
    "dataframeHeaderBackgroundColor": "#F6F8FA",
    "codeBackgroundColor": "#F4F6F9",
    "codeTextColor": "#1B4B7A",
    "chartCategoricalColors": list(LIGHT_SERIES),
}
_LIGHT_SIDEBAR: Final = {
    "backgroundColor": "#F6F8FA", "secondaryBackgroundColor": "#E6EBF1", "borderColor": "#E1E7ED",
}  # fmt: skip

_DARK: Final[dict[str, Any]] = {
    "primaryColor": "#2B74C4",
    "backgroundColor": "#0F141A",
    "secondaryBackgroundColor": "#182028",
    "textColor": "#E8EDF2",
    "linkColor": "#6FB3F2",
    "borderColor": "#2A343F",
    "dataframeBorderColor": "#232C36",
    "dataframeHeaderBackgroundColor": "#161D25",
    "codeBackgroundColor": "#161D25",
    "codeTextColor": "#9CCBF5",
    "chartCategoricalColors": list(DARK_SERIES),
}
_DARK_SIDEBAR: Final = {
    "backgroundColor": "#121820", "secondaryBackgroundColor": "#242E39", "borderColor": "#1F2831",
}  # fmt: skip


def options() -> dict[str, Any]:
    """Every `theme.*` option of Streamlit, by dotted name."""
    sections = {
        "theme": _COMMON,
        "theme.light": _LIGHT,
        "theme.light.sidebar": _LIGHT_SIDEBAR,
        "theme.dark": _DARK,
        "theme.dark.sidebar": _DARK_SIDEBAR,
    }
    return {f"{section}.{name}": value for section, part in sections.items() for name, value in part.items()}
