from django.views.generic import ListView

from .models import Note


class NoteList(ListView):
    model = Note
