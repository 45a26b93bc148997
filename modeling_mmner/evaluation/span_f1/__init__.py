"""The metric as a module of `evaluate`: a folder that is also a Space of the Hub, and needs nothing of the
package.
"""
