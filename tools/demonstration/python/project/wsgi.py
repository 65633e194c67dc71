"""What the group names as its application."""

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

application = get_wsgi_application()
# Django would import the views with the first request. Now, a mistake in one keeps the old workers in their place.
get_resolver().url_patterns  # noqa: B018 - the property is asked for what it imports
