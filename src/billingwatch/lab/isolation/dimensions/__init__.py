"""Dimensions: one module for each question that decides between schemas and rows. See lab.isolation.registry for their order."""
