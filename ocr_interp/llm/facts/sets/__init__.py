"""Fact sets, one file each: what names are told and asked, in which words."""
