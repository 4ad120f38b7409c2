"""Reports: results as one HTML file that needs no network; their panels, and the page that shows them."""
