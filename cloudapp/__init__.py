"""How the parts become one program: settings, urls, celery, base templates, health.

Nothing is imported here: cloudapp.local runs before anything but Python is installed.
"""
