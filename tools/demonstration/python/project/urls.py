from django.contrib import admin
from django.urls import path
from notes.views import NoteList, count

urlpatterns = [
    path("", NoteList.as_view(), name="notes"),
    path("count/", count, name="count"),
    path("admin/", admin.site.urls),
]
