"""python -m ocr_interp.cli: the same as the command ocr-interp."""

from ocr_interp.cli import main

main()
