"""How dates are written in Simplified Chinese, where Django's own are too wide for a chart."""

DATE_FORMAT = "Y年n月j日"
DATETIME_FORMAT = "Y年n月j日 H:i"
MONTH_DAY_FORMAT = "n/j"
