"""One self-contained HTML file from the arrays that describe a fit."""
