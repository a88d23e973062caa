"""Fixtures for the tests of services: a pytest plugin, loaded by pytest itself.

The extra ``testing`` is all there is to install; docs/testing.md shows each fixture at
work. ``-p no:poolproof`` leaves the plugin out.
"""
