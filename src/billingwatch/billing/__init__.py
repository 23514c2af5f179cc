"""Billing: Stripe's shapes of every API version → our tables, in any order of arrival; knows money, decides nothing."""
